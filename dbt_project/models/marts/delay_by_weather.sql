with departures as (
    select
        flights.dep_delay_min,
        weather.precipitation_inches,
        weather.visibility_miles,
        weather.wind_speed_mph
    from {{ ref('int_flights') }} as flights
    left join {{ ref('stg_weather') }} as weather
        on weather.origin = flights.origin and weather.time_hour = flights.time_hour
    where flights.departed_at is not null
),

banded as (
    select
        dep_delay_min,
        measure,
        band_no,
        band
    from departures
    cross join unnest(array[
        {{ banded('precipitation', 'precipitation_inches', [('none', '<= 0'), ('under 0.1 inch', '< 0.1'), ('0.1 inch and more', 'is not null')]) }},
        {{ banded('visibility', 'visibility_miles', [('under 1 mile', '< 1'), ('1 to 3 miles', '< 3'), ('3 to 10 miles', '< 10'), ('10 miles and more', 'is not null')]) }},
        {{ banded('wind', 'wind_speed_mph', [('under 5 mph', '< 5'), ('5 to 15 mph', '< 15'), ('15 to 25 mph', '< 25'), ('25 mph and more', 'is not null')]) }}
    ]) as bands (measure, band_no, band)
)

select
    measure,
    band_no,
    band,
    count(*) as departures,
    count_if(dep_delay_min >= {{ var('delayed_from_min') }}) as delayed,
    cast(count_if(dep_delay_min >= {{ var('delayed_from_min') }}) as double) / count(*) as delayed_share,
    avg(dep_delay_min) as avg_dep_delay_min
from banded
group by measure, band_no, band
