"""What came out: tables of metrics, and the un-tuned model beside the tuned one."""
