{# What include/serving/publish.py pinned: a Nessie commit, and of each table the folder and the metadata file in it. #}
{% macro pinned() %}
    {{ return(fromjson(env_var('SHUDL_PINNED', '{}'))) }}
{% endmacro %}

{# The Iceberg table as it was at the pinned commit, for ClickHouse. Its S3 keys are in the engine's configuration. #}
{% macro lake_at(namespace, table) %}
    {%- do source(namespace, table) -%}
    {%- set name = namespace ~ '.' ~ table -%}
    {%- set at = pinned().get('tables', {}).get(name) -%}
    {%- if execute and not at -%}
        {{ exceptions.raise_compiler_error('SHUDL_PINNED does not say where ' ~ name ~ ' is; run the DAG publish_flights, which sets it') }}
    {%- elif at -%}
        icebergS3(lake_s3, url = '{{ at.url }}', SETTINGS iceberg_metadata_file_path = '{{ at.metadata }}')
    {%- endif -%}
{% endmacro %}

{# Record on the table where it was copied from: the comment moves with the table when it is exchanged. #}
{% macro record_origin() %}
    {%- set origin = {'nessie_hash': pinned().get('hash'), 'run_id': pinned().get('run_id'), 'copied_at': run_started_at.isoformat()} -%}
    alter table {{ this }} modify comment '{{ tojson(origin) | replace("\\", "\\\\") | replace("'", "\\'") }}'
{% endmacro %}

{# Columns that are never null, as a type that says so; a null is an error. #}
{% macro required(type, columns) -%}
    {%- for column in columns %}
    cast({{ column }} as {{ type }}) as {{ column }}{{ ',' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
