{{ config(order_by=['origin', 'scheduled_hour']) }}
select
    {{ required('LowCardinality(String)', ['origin']) }},
    {{ required('Int32', ['scheduled_hour']) }},
    {{ required('Int64', ['flights', 'pending', 'arrived', 'diverted', 'cancelled', 'on_time']) }},
    on_time_share,
    avg_dep_delay_min,
    avg_arr_delay_min
from {{ lake_at('marts', 'otp_by_hour') }}
