"""An app whose bots put what people wrote wherever a careless author would."""
