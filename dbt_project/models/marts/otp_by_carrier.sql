select
    flights.carrier,
    airlines.carrier_name,
    {{ on_time_performance() }}
from {{ ref('int_flights') }} as flights
left join {{ ref('stg_airlines') }} as airlines on airlines.carrier = flights.carrier
group by flights.carrier, airlines.carrier_name
