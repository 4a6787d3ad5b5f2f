"""One file a table or figure (or a few that share a run). Each has ROWS: list[Row]; see nlbook.book.ledger.row."""
