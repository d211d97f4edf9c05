"""Made-up snapshots, and a stand-in of the API that serves them: for the demo, and for your own tests."""
