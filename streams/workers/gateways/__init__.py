"""What stands in Redis for gateways: written from actions.v1, recounted, and written again where it was lost."""
