{# Under a contract dbt-trino makes an empty table and fills it: two commits, with an empty table between them.
   Here the contract is checked and the table is replaced in one commit. #}
{% macro trino__create_table_as(temporary, relation, sql, on_exists=None) %}
    {%- if config.get('contract').enforced -%}
        {{ get_assert_columns_equivalent(sql) }}
        {%- set sql = get_select_subquery(sql) -%}
    {%- endif -%}
    create {{ 'or replace' if on_exists == 'replace' }} table {{ relation }}
    {{ comment(model.get('description')) }}
    {{ properties(temporary) }}
    as (
        {{ sql }}
    )
{% endmacro %}
