-- The same when none is: from the kinds that are counted.
SELECT kind.fingerprint, kind.count FROM kind
