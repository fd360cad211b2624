select
    tailnum,
    manufacturer,
    model,
    year as manufactured_year,
    seats
from {{ source('cdc_flights', 'planes') }}
