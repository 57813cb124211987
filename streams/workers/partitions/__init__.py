"""What a worker does for the partitions it owns: rows, steps, outputs, snapshots, ticks. It knows no engine."""
