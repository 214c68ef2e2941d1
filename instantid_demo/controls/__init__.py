"""From a photo to the map that an extra ControlNet reads."""
