{# The measures of on-time performance, the same in every mart that has them. #}
{% macro on_time_performance() %}
    count(*) as flights,
    count_if(status in ('scheduled', 'en_route')) as pending,
    count_if(status = 'arrived') as arrived,
    count_if(status = 'diverted') as diverted,
    count_if(status = 'cancelled') as cancelled,
    count_if(on_time) as on_time,
    cast(count_if(on_time) as double)
        / nullif(count_if(status in ('arrived', 'diverted', 'cancelled')), 0) as on_time_share,
    avg(dep_delay_min) as avg_dep_delay_min,
    avg(arr_delay_min) as avg_arr_delay_min
{% endmacro %}
