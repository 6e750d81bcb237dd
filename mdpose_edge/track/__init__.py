"""Who is who from one frame to the next, and steadier keypoints: a Kalman filter that takes sigma at its word."""
