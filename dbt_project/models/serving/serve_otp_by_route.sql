{{ config(order_by=['origin', 'dest']) }}
select
    {{ required('LowCardinality(String)', ['origin', 'dest']) }},
    dest_name,
    {{ required('Int32', ['distance_miles']) }},
    {{ required('Int64', ['flights', 'pending', 'arrived', 'diverted', 'cancelled', 'on_time']) }},
    on_time_share,
    avg_dep_delay_min,
    avg_arr_delay_min
from {{ lake_at('marts', 'otp_by_route') }}
