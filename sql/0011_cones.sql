-- Cones whose plan is made once a session: planning took most of a small cone's time.

-- Within a zone of declination (see 0007) a cone is a range of right ascension, one for each turn that meets 0 to 360.
-- The plan must hold for cones of any size, so it is the one that is right for small ones: index scans and nested
-- loops. It reads the view, as its caller may read nothing else.
DO $$
DECLARE columns text; shown text;
BEGIN
    SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum),
           string_agg(format('a.%I', attname), ', ' ORDER BY attnum) INTO columns, shown
    FROM pg_attribute WHERE attrelid = 'anomaly_catalog'::regclass AND attnum > 0;
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION cone_search(at_ra double precision, at_dec double precision, radius double precision)
        RETURNS TABLE (separation double precision, %s) LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100 COST 1000
        SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
        SET enable_hashjoin = off SET enable_mergejoin = off AS $body$
        #variable_conflict use_column
        DECLARE
            half double precision;
            west double precision := 0;
            east double precision := 360;
            first integer := 0;
            last integer := 0;
            lowest integer;
            highest integer;
        BEGIN
            PERFORM checked_radius(at_ra, at_dec, radius);
            half := cone_half_width(at_dec, radius);
            IF half < 180 THEN
                west := at_ra - half;
                east := at_ra + half;
                first := ceil(-east / 360);
                last := floor((360 - west) / 360);
            END IF;
            lowest := floor((greatest(at_dec - radius - 1e-8, -90) + 90) * 10);
            highest := floor((least(at_dec + radius + 1e-8, 90) + 90) * 10);
            FOR turn IN first .. last LOOP
                RETURN QUERY
                SELECT found.*
                FROM generate_series(lowest, highest) AS zone (number)
                CROSS JOIN LATERAL (
                    SELECT sphere_distance(at_ra, at_dec, a.ra, a.dec), %s
                    FROM anomaly_catalog a
                    WHERE (floor((a.dec + 90) * 10))::integer = zone.number
                      AND a.ra >= west + 360 * turn AND a.ra <= east + 360 * turn
                      AND sphere_distance(at_ra, at_dec, a.ra, a.dec) <= radius
                    OFFSET 0) AS found;  -- OFFSET keeps it a query of its own: one a zone, by the index
            END LOOP;
        END $body$ $function$, columns, shown);
END $$;
