-- Remember that an execution was counted although no row is stored.
INSERT INTO counted (id, finished_us) VALUES (:id, :finished_us)
