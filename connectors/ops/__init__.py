"""Operations: supervisor, `attimo up`, `attimo top`."""
