{{ config(tags=['aircraft']) }}
select
    coalesce(aircraft.manufacturer, 'unknown') as manufacturer,
    coalesce(aircraft.engine_kind, 'unknown') as engine_kind,
    count(distinct flights.tailnum) as planes,
    avg(year(flights.flight_date) - aircraft.manufactured_year) as avg_age_years,
    {{ on_time_performance() }}
from {{ ref('int_flights') }} as flights
left join {{ ref('stg_aircraft') }} as aircraft on aircraft.tailnum = flights.tailnum
where flights.tailnum is not null
group by 1, 2
