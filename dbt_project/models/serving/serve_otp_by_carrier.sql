{{ config(order_by='carrier') }}
select
    {{ required('LowCardinality(String)', ['carrier', 'carrier_name']) }},
    {{ required('Int64', ['flights', 'pending', 'arrived', 'diverted', 'cancelled', 'on_time']) }},
    on_time_share,
    avg_dep_delay_min,
    avg_arr_delay_min
from {{ lake_at('marts', 'otp_by_carrier') }}
