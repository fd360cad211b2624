{# A model's schema is the one its folder names, without the target's in front. #}
{% macro generate_schema_name(custom_schema_name, node) %}
    {{- (custom_schema_name or target.schema) | trim -}}
{% endmacro %}

{# The table of the model `serve_x` is `x`: the mart `x` has that name among the models. #}
{% macro generate_alias_name(custom_alias_name=none, node=none) %}
    {{- custom_alias_name or node.name.removeprefix('serve_') -}}
{% endmacro %}
