-- The source's tables, as the package's CSV files have them.
-- Fractions that are decimal in the files are numeric; those that came out of a conversion of units are float8.
-- No foreign keys: flights name planes and airports that the other files do not have.

CREATE TABLE public.airlines (
    carrier text PRIMARY KEY,
    name    text NOT NULL
);
COMMENT ON TABLE public.airlines IS 'Names of the carriers';
COMMENT ON COLUMN public.airlines.carrier IS 'Two-letter code';

CREATE TABLE public.airports (
    faa   text PRIMARY KEY,
    name  text NOT NULL,
    lat   float8 NOT NULL,
    lon   float8 NOT NULL,
    alt   integer NOT NULL,
    tz    integer NOT NULL,
    dst   text NOT NULL,
    tzone text
);
COMMENT ON TABLE public.airports IS 'Airports of the United States';
COMMENT ON COLUMN public.airports.faa IS 'FAA code';
COMMENT ON COLUMN public.airports.lat IS 'Degrees north';
COMMENT ON COLUMN public.airports.lon IS 'Degrees east';
COMMENT ON COLUMN public.airports.alt IS 'Feet';
COMMENT ON COLUMN public.airports.tz IS 'Hours from UTC in winter';
COMMENT ON COLUMN public.airports.dst IS 'Daylight saving time: A as in the United States, N none, U unknown';
COMMENT ON COLUMN public.airports.tzone IS 'IANA time zone';

CREATE TABLE public.planes (
    tailnum      text PRIMARY KEY,
    year         integer,
    type         text NOT NULL,
    manufacturer text NOT NULL,
    model        text NOT NULL,
    engines      integer NOT NULL,
    seats        integer NOT NULL,
    speed        integer,
    engine       text NOT NULL
);
COMMENT ON TABLE public.planes IS 'Planes of the FAA registry; some that flew are not in it';
COMMENT ON COLUMN public.planes.year IS 'Year of manufacture';
COMMENT ON COLUMN public.planes.speed IS 'Cruising speed, miles per hour';

CREATE TABLE public.weather (
    origin     text NOT NULL,
    year       integer NOT NULL,
    month      integer NOT NULL,
    day        integer NOT NULL,
    hour       integer NOT NULL,
    temp       numeric(5,2),
    dewp       numeric(5,2),
    humid      numeric(5,2),
    wind_dir   integer,
    wind_speed float8,
    wind_gust  float8,
    precip     numeric(4,2),
    pressure   numeric(5,1),
    visib      numeric(4,2),
    time_hour  timestamptz NOT NULL,
    PRIMARY KEY (origin, time_hour)
);
COMMENT ON TABLE public.weather IS 'Hourly weather at the three airports of New York';
COMMENT ON COLUMN public.weather.hour IS 'Local hour; 1 o''clock comes twice when daylight saving time ends, so it is no key';
COMMENT ON COLUMN public.weather.temp IS 'Degrees Fahrenheit';
COMMENT ON COLUMN public.weather.dewp IS 'Dew point, degrees Fahrenheit';
COMMENT ON COLUMN public.weather.humid IS 'Relative humidity, per cent';
COMMENT ON COLUMN public.weather.wind_dir IS 'Degrees';
COMMENT ON COLUMN public.weather.wind_speed IS 'Miles per hour';
COMMENT ON COLUMN public.weather.wind_gust IS 'Miles per hour';
COMMENT ON COLUMN public.weather.precip IS 'Inches';
COMMENT ON COLUMN public.weather.pressure IS 'Millibars';
COMMENT ON COLUMN public.weather.visib IS 'Miles';

CREATE TABLE public.flights (
    id             bigint PRIMARY KEY,
    year           integer NOT NULL,
    month          integer NOT NULL,
    day            integer NOT NULL,
    dep_time       integer,
    sched_dep_time integer NOT NULL,
    dep_delay      integer,
    arr_time       integer,
    sched_arr_time integer NOT NULL,
    arr_delay      integer,
    carrier        text NOT NULL,
    flight         integer NOT NULL,
    tailnum        text,
    origin         text NOT NULL,
    dest           text NOT NULL,
    air_time       integer,
    distance       integer NOT NULL,
    hour           integer NOT NULL,
    minute         integer NOT NULL,
    time_hour      timestamptz NOT NULL
);
COMMENT ON TABLE public.flights IS 'Flights out of New York in 2013';
COMMENT ON COLUMN public.flights.id IS 'Row of the package''s flights.csv, from 1';
COMMENT ON COLUMN public.flights.year IS 'Local day of the scheduled departure: year, month, day';
COMMENT ON COLUMN public.flights.dep_time IS 'Actual departure, local time as the number hhmm; NULL: has not left';
COMMENT ON COLUMN public.flights.sched_dep_time IS 'Scheduled departure, local time as the number hhmm';
COMMENT ON COLUMN public.flights.dep_delay IS 'Minutes; negative: left early';
COMMENT ON COLUMN public.flights.arr_time IS 'Actual arrival, local time of the destination as the number hhmm';
COMMENT ON COLUMN public.flights.arr_delay IS 'Minutes; NULL with an arr_time: diverted';
COMMENT ON COLUMN public.flights.flight IS 'Flight number';
COMMENT ON COLUMN public.flights.air_time IS 'Minutes in the air';
COMMENT ON COLUMN public.flights.distance IS 'Miles';
COMMENT ON COLUMN public.flights.time_hour IS 'Hour of the scheduled departure';
