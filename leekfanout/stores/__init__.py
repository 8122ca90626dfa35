"""What is kept on disk: batches that the API doesn't take yet, and events that it won't take."""
