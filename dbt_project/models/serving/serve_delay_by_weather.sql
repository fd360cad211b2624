{{ config(order_by=['measure', 'band_no']) }}
select
    {{ required('LowCardinality(String)', ['measure']) }},
    {{ required('Int32', ['band_no']) }},
    {{ required('LowCardinality(String)', ['band']) }},
    {{ required('Int64', ['departures', 'delayed']) }},
    {{ required('Float64', ['delayed_share', 'avg_dep_delay_min']) }}
from {{ lake_at('marts', 'delay_by_weather') }}
