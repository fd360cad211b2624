-- The mirror is read here and nowhere else: every mart speaks of the same moment.
with flights as (
    select * from {{ ref('stg_flights') }}
),

observed as (
    select max(departed_at) as until from flights
),

judged as (
    select
        flights.*,
        case
            when arr_delay_min is not null then 'arrived'
            when has_arrived then 'diverted'
            when departed_at <= until - interval '24' hour then 'diverted'
            when departed_at is not null then 'en_route'
            when scheduled_departure_at <= until - interval '24' hour then 'cancelled'
            else 'scheduled'
        end as status
    from flights
    cross join observed
)

select
    flight_id,
    flight_date,
    carrier,
    flight_number,
    tailnum,
    origin,
    dest,
    scheduled_hour,
    time_hour,
    scheduled_departure_at,
    departed_at,
    status,
    dep_delay_min,
    arr_delay_min,
    coalesce(arr_delay_min < {{ var('delayed_from_min') }}, false) as on_time,
    air_time_min,
    distance_miles
from judged
