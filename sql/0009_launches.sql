-- Which RayJob ran which run: written by the run's driver when it starts inside a Ray cluster on Kubernetes.

CREATE TABLE launches (
    run_id          text NOT NULL,
    rayjob          text NOT NULL,
    namespace       text NOT NULL,
    ray_cluster     text NOT NULL,
    command         text NOT NULL,
    config          jsonb NOT NULL,
    skysift_version text NOT NULL,
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON launches (run_id, at);
COMMENT ON TABLE launches IS 'Starts of drivers on Kubernetes; a run that was started again has several';
COMMENT ON COLUMN launches.run_id IS 'The run';
COMMENT ON COLUMN launches.rayjob IS 'Name of the RayJob; of those that skysift submit makes it is the run''s';
COMMENT ON COLUMN launches.namespace IS 'Its namespace';
COMMENT ON COLUMN launches.ray_cluster IS 'The RayCluster that KubeRay made for this attempt';
COMMENT ON COLUMN launches.command IS 'The skysift command, such as run or score';
COMMENT ON COLUMN launches.config IS 'All of the configuration; it holds no secrets';
COMMENT ON COLUMN launches.skysift_version IS 'Version of skysift in the image';
COMMENT ON COLUMN launches.at IS 'When the driver began';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'skysift_pipeline') THEN
        GRANT SELECT, INSERT ON launches TO skysift_pipeline;
    END IF;
END $$;
