"""What stored faces are worth beside real ones: sets that ``predict`` wrote, or folders of pictures from elsewhere."""
