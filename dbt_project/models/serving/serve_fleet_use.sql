{{ config(order_by='tailnum') }}
select
    {{ required('String', ['tailnum']) }},
    cast(manufacturer as LowCardinality(Nullable(String))) as manufacturer,
    cast(model as LowCardinality(Nullable(String))) as model,
    manufactured_year,
    seats,
    {{ required('Int64', ['departures', 'days_used', 'destinations', 'distance_miles']) }},
    air_time_min,
    {{ required('Float64', ['avg_dep_delay_min']) }},
    {{ required("DateTime64(6, 'UTC')", ['first_departure_at', 'last_departure_at']) }}
from {{ lake_at('marts', 'fleet_use') }}
