-- Which compiler plans a job: a coordinator of another one plans it anew.
ALTER TABLE jobs ADD COLUMN compiler TEXT;  -- VERSION of the compiler; NULL in rows of before
