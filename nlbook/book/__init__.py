"""What only the chapters import: checks, pictures, data, the ledger, and a folder for each chapter."""
