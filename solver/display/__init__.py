"""What people see while problems are being solved."""
