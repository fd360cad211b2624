select
    origin,
    scheduled_hour,
    {{ on_time_performance() }}
from {{ ref('int_flights') }}
group by origin, scheduled_hour
