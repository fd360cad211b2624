-- Every mart counts the same flights as int_flights: a row here is a mart and a figure of which it has another total.
{{ config(severity='error') }}
with truth as (
    select
        count(*) as flights,
        count_if(on_time) as on_time,
        count_if(departed_at is not null) as departures,
        count_if(departed_at is not null and tailnum is not null) as departures_of_planes
    from {{ ref('int_flights') }}
),

totals (mart, figure, total, expected) as (
    {% for mart in ['otp_by_carrier', 'otp_by_route', 'otp_by_hour'] %}
    {% for figure in ['flights', 'on_time'] %}
    select '{{ mart }}', '{{ figure }}', (select sum({{ figure }}) from {{ ref(mart) }}), {{ figure }} from truth
    union all
    {% endfor %}
    select '{{ mart }}', 'statuses', (select sum(pending + arrived + diverted + cancelled) from {{ ref(mart) }}), flights from truth
    union all
    {% endfor %}
    {% for measure in ['precipitation', 'visibility', 'wind'] %}
    select 'delay_by_weather', '{{ measure }}', (select sum(departures) from {{ ref('delay_by_weather') }} where measure = '{{ measure }}'), departures from truth
    union all
    {% endfor %}
    select 'fleet_use', 'departures', (select sum(departures) from {{ ref('fleet_use') }}), departures_of_planes from truth
)

select * from totals where total is distinct from expected
