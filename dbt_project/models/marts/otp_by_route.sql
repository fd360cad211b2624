select
    flights.origin,
    flights.dest,
    airports.airport_name as dest_name,
    max(flights.distance_miles) as distance_miles,
    {{ on_time_performance() }}
from {{ ref('int_flights') }} as flights
left join {{ ref('stg_airports') }} as airports on airports.airport = flights.dest
group by flights.origin, flights.dest, airports.airport_name
