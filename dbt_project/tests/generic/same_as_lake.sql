{# One row when the copy differs from the lake's table: in its number of rows, or in a hash of all of them in any order. #}
{% test same_as_lake(model, namespace, table) %}
with
    served as (select count() as row_count, sum(cityHash64(toString(tuple(*)))) as hash from {{ model }}),
    lake as (select count() as row_count, sum(cityHash64(toString(tuple(*)))) as hash from {{ lake_at(namespace, table) }})
select served.row_count, lake.row_count
from served cross join lake
where (served.row_count, served.hash) != (lake.row_count, lake.hash)
{% endtest %}
