select
    id as flight_id,
    carrier,
    flight as flight_number,
    tailnum,
    origin,
    dest,
    date(format('%04d-%02d-%02d', year, month, day)) as flight_date,
    hour as scheduled_hour,
    time_hour,
    date_add('minute', minute, time_hour) as scheduled_departure_at,
    date_add('minute', minute + dep_delay, time_hour) as departed_at,
    dep_delay as dep_delay_min,
    arr_time is not null as has_arrived,
    arr_delay as arr_delay_min,
    air_time as air_time_min,
    distance as distance_miles
from {{ source('cdc_flights', 'flights') }}
