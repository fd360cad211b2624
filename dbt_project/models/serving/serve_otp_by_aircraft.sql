{{ config(order_by=['manufacturer', 'engine_kind'], tags=['aircraft']) }}
select
    {{ required('LowCardinality(String)', ['manufacturer', 'engine_kind']) }},
    {{ required('Int64', ['planes']) }},
    avg_age_years,
    {{ required('Int64', ['flights', 'pending', 'arrived', 'diverted', 'cancelled', 'on_time']) }},
    on_time_share,
    avg_dep_delay_min,
    avg_arr_delay_min
from {{ lake_at('marts', 'otp_by_aircraft') }}
