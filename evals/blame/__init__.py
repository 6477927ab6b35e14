"""What caused a wrong or failed answer: up to three suspect steps, without a model."""
