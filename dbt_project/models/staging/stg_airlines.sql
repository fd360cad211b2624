select
    carrier,
    name as carrier_name
from {{ source('cdc_flights', 'airlines') }}
