-- The marts whose totals are not those of int_flights.
with truth as (
    select
        count(*) as flights,
        count_if(on_time) as on_time,
        count_if(departed_at is not null) as departures,
        count_if(departed_at is not null and tailnum is not null) as departures_of_planes
    from {{ ref('int_flights') }}
),

marts (mart, total, on_time, statuses) as (
    {% for mart in ['otp_by_carrier', 'otp_by_route', 'otp_by_hour'] %}
    select '{{ mart }}', sum(flights), sum(on_time), sum(pending + arrived + diverted + cancelled) from {{ ref(mart) }}
    union all
    {% endfor %}
    select 'delay_by_weather', sum(departures), null, null from {{ ref('delay_by_weather') }}
    union all
    select 'fleet_use', sum(departures), null, null from {{ ref('fleet_use') }}
)

select marts.*, truth.*
from marts
cross join truth
where case
    when mart = 'delay_by_weather' then total is distinct from 3 * departures
    when mart = 'fleet_use' then total is distinct from departures_of_planes
    else total is distinct from flights or statuses is distinct from flights or marts.on_time is distinct from truth.on_time
end
