select
    origin,
    time_hour,
    precip as precipitation_inches,
    visib as visibility_miles,
    wind_speed as wind_speed_mph
from {{ source('cdc_flights', 'weather') }}
