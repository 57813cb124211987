"""`spendbrake demo`: the scene, the board it is drawn on, the command."""
