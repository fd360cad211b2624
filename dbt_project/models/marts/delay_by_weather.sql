{# Of each measure: its column, and its bands in their order, each with the condition that no earlier one meets. #}
{% set measures = {
    'precipitation': ('precipitation_inches', [('none', '<= 0'), ('under 0.1 inch', '< 0.1'), ('0.1 inch and more', 'is not null')]),
    'visibility': ('visibility_miles', [('under 1 mile', '< 1'), ('1 to 3 miles', '< 3'), ('3 to 10 miles', '< 10'), ('10 miles and more', 'is not null')]),
    'wind': ('wind_speed_mph', [('under 5 mph', '< 5'), ('5 to 15 mph', '< 15'), ('15 to 25 mph', '< 25'), ('25 mph and more', 'is not null')]),
} %}
{% set bands = [] %}
{% for measure, (_, named) in measures.items() %}
    {% do bands.append("('" ~ measure ~ "', 0, 'unknown')") %}
    {% for band, _ in named %}
        {% do bands.append("('" ~ measure ~ "', " ~ loop.index ~ ", '" ~ band ~ "')") %}
    {% endfor %}
{% endfor %}
with bands (measure, band_no, band) as (
    values {{ bands | join(', ') }}
),

departures as (
    select
        {% for measure, (column, named) in measures.items() %}
        case
            {% for _, condition in named %}
            when weather.{{ column }} {{ condition }} then {{ loop.index }}
            {% endfor %}
            else 0
        end as {{ measure }},
        {% endfor %}
        flights.dep_delay_min
    from {{ ref('int_flights') }} as flights
    left join {{ ref('stg_weather') }} as weather
        on weather.origin = flights.origin and weather.time_hour = flights.time_hour
    where flights.departed_at is not null
),

totals as (
    select
        case
            {% for measure in measures %}
            when grouping({{ measure }}) = 0 then '{{ measure }}'
            {% endfor %}
        end as measure,
        coalesce({{ measures | join(', ') }}) as band_no,
        count(*) as departures,
        count_if(dep_delay_min >= {{ var('delayed_from_min') }}) as delayed,
        avg(dep_delay_min) as avg_dep_delay_min
    from departures
    group by grouping sets ({% for measure in measures %}({{ measure }}){{ ', ' if not loop.last }}{% endfor %})
)

select
    cast(totals.measure as varchar) as measure,
    totals.band_no,
    cast(bands.band as varchar) as band,
    totals.departures,
    totals.delayed,
    cast(totals.delayed as double) / totals.departures as delayed_share,
    totals.avg_dep_delay_min
from totals
join bands on bands.measure = totals.measure and bands.band_no = totals.band_no
