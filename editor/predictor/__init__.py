"""The task predictor: it reads an instruction and says which task it belongs to (Emu Edit, section 4.2)."""
