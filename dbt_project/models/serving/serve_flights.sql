{{ config(order_by='id') }}
select
    id,
    {{ required('Int32', ['year', 'month', 'day']) }},
    dep_time,
    {{ required('Int32', ['sched_dep_time']) }},
    dep_delay,
    arr_time,
    {{ required('Int32', ['sched_arr_time']) }},
    arr_delay,
    {{ required('LowCardinality(String)', ['carrier']) }},
    {{ required('Int32', ['flight']) }},
    cast(tailnum as LowCardinality(Nullable(String))) as tailnum,
    {{ required('LowCardinality(String)', ['origin', 'dest']) }},
    air_time,
    {{ required('Int32', ['distance', 'hour', 'minute']) }},
    {{ required("DateTime64(6, 'UTC')", ['time_hour']) }},
    _lsn,
    _committed_at
from {{ lake_at('cdc_flights', 'flights') }}
