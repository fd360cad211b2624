select
    faa as airport,
    name as airport_name
from {{ source('cdc_flights', 'airports') }}
