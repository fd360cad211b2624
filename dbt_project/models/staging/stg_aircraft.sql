{{ config(tags=['aircraft']) }}
-- A registry file may say NA for what it does not know, which makes the whole column text.
select
    tailnum,
    manufacturer,
    model,
    engine as engine_kind,
    try_cast(cast(year as varchar) as integer) as manufactured_year
from {{ source('raw', 'aircraft') }}
