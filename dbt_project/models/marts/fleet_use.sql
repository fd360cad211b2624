select
    flights.tailnum,
    planes.manufacturer,
    planes.model,
    planes.manufactured_year,
    planes.seats,
    count(*) as departures,
    count(distinct flights.flight_date) as days_used,
    count(distinct flights.dest) as destinations,
    sum(flights.distance_miles) as distance_miles,
    sum(flights.air_time_min) as air_time_min,
    avg(flights.dep_delay_min) as avg_dep_delay_min,
    min(flights.departed_at) as first_departure_at,
    max(flights.departed_at) as last_departure_at
from {{ ref('int_flights') }} as flights
left join {{ ref('stg_planes') }} as planes on planes.tailnum = flights.tailnum
where flights.tailnum is not null and flights.departed_at is not null
group by flights.tailnum, planes.manufacturer, planes.model, planes.manufactured_year, planes.seats
