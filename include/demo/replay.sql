-- What the replay needs beside the source's tables: the rows that are still to come, the events in their order,
-- how far the replay is, and the function that goes on from there.

CREATE SCHEMA demo;
COMMENT ON SCHEMA demo IS 'The replay of the flights: its events and its position. Not part of the source''s data';

CREATE TABLE demo.flights (LIKE public.flights INCLUDING INDEXES);
COMMENT ON TABLE demo.flights IS 'Flights of the days to replay, complete';

CREATE TABLE demo.weather (LIKE public.weather INCLUDING INDEXES);
COMMENT ON TABLE demo.weather IS 'Weather of the days to replay';

CREATE TABLE demo.events (
    number    bigint PRIMARY KEY,
    at        timestamptz NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('weather', 'scheduled', 'departed', 'arrived', 'cancelled')),
    flight_id bigint,
    origin    text,
    CHECK ((flight_id IS NULL) = (kind = 'weather') AND (origin IS NULL) <> (kind = 'weather'))
);
CREATE INDEX ON demo.events (at);
COMMENT ON TABLE demo.events IS 'The changes of the replay, numbered from 1 in the order of (virtual) time';
COMMENT ON COLUMN demo.events.origin IS 'The airport of a weather event; its time_hour is at';

CREATE TABLE demo.replay_state (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    from_day     date NOT NULL,
    event_number bigint NOT NULL DEFAULT 0,
    virtual_time timestamptz NOT NULL,
    weather      bigint NOT NULL DEFAULT 0,
    scheduled    bigint NOT NULL DEFAULT 0,
    departed     bigint NOT NULL DEFAULT 0,
    arrived      bigint NOT NULL DEFAULT 0,
    cancelled    bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE demo.replay_state IS 'One row: what was loaded, the last event applied, and how many of each kind';

-- The events of the rows in demo.flights and demo.weather. The rules:
--   weather    insert  at its hour
--   scheduled  insert  1 h before the scheduled departure; what only the departure and the arrival tell is NULL
--   departed   update  dep_time, dep_delay: at scheduled departure + dep_delay
--   arrived    update  arr_time, arr_delay, air_time: at departure + air_time + 30 min for the ways on the ground;
--                      6 h after departure when air_time is unknown (a diverted flight);
--                      never when arr_time is unknown
--   cancelled  delete  3 h after the scheduled departure, of a flight without dep_time
-- Events of the same minute: weather first, by origin; then flights by id.
CREATE PROCEDURE demo.plan_events() LANGUAGE sql AS $$
    INSERT INTO demo.events (number, at, kind, flight_id, origin)
    WITH moments AS (
        SELECT *,
               time_hour + make_interval(mins => minute) AS scheduled_at,
               time_hour + make_interval(mins => minute + dep_delay) AS departed_at
        FROM demo.flights
    ), unnumbered (at, kind, flight_id, origin) AS (
        SELECT time_hour, 'weather', NULL::bigint, origin FROM demo.weather
        UNION ALL
        SELECT scheduled_at - interval '1 hour', 'scheduled', id, NULL FROM moments
        UNION ALL
        SELECT departed_at, 'departed', id, NULL FROM moments WHERE dep_time IS NOT NULL
        UNION ALL
        SELECT departed_at + make_interval(mins => coalesce(air_time + 30, 360)), 'arrived', id, NULL
        FROM moments WHERE dep_time IS NOT NULL AND arr_time IS NOT NULL
        UNION ALL
        SELECT scheduled_at + interval '3 hours', 'cancelled', id, NULL FROM moments WHERE dep_time IS NULL
    )
    SELECT row_number() OVER (ORDER BY at, origin COLLATE "C" NULLS LAST, flight_id), *
    FROM unnumbered
$$;

-- Applies the events up to number upto, one statement each in their order, and moves the position with them.
-- Does nothing when the position is there already. A flight that somebody deleted stays deleted.
CREATE FUNCTION demo.replay_to(upto bigint) RETURNS demo.replay_state LANGUAGE plpgsql AS $$
DECLARE
    state demo.replay_state;
    event demo.events;
BEGIN
    SELECT * INTO STRICT state FROM demo.replay_state FOR UPDATE;
    FOR event IN
        SELECT * FROM demo.events WHERE number > state.event_number AND number <= upto ORDER BY number
    LOOP
        CASE event.kind
            WHEN 'weather' THEN
                INSERT INTO public.weather
                SELECT * FROM demo.weather WHERE origin = event.origin AND time_hour = event.at;
                state.weather := state.weather + 1;
            WHEN 'scheduled' THEN
                INSERT INTO public.flights (id, year, month, day, sched_dep_time, sched_arr_time, carrier, flight,
                                            tailnum, origin, dest, distance, hour, minute, time_hour)
                SELECT id, year, month, day, sched_dep_time, sched_arr_time, carrier, flight,
                       tailnum, origin, dest, distance, hour, minute, time_hour
                FROM demo.flights WHERE id = event.flight_id;
                state.scheduled := state.scheduled + 1;
            WHEN 'departed' THEN
                UPDATE public.flights f SET dep_time = d.dep_time, dep_delay = d.dep_delay
                FROM demo.flights d WHERE d.id = event.flight_id AND f.id = event.flight_id;
                state.departed := state.departed + 1;
            WHEN 'arrived' THEN
                UPDATE public.flights f SET arr_time = d.arr_time, arr_delay = d.arr_delay, air_time = d.air_time
                FROM demo.flights d WHERE d.id = event.flight_id AND f.id = event.flight_id;
                state.arrived := state.arrived + 1;
            WHEN 'cancelled' THEN
                DELETE FROM public.flights WHERE id = event.flight_id;
                state.cancelled := state.cancelled + 1;
        END CASE;
        state.event_number := event.number;
        state.virtual_time := event.at;
    END LOOP;
    UPDATE demo.replay_state SET
        event_number = state.event_number, virtual_time = state.virtual_time, weather = state.weather,
        scheduled = state.scheduled, departed = state.departed, arrived = state.arrived, cancelled = state.cancelled;
    RETURN state;
END
$$;
