"""Training the policy of a job: rounds of rollouts, training, serving and acceptance, resumable at every phase."""
