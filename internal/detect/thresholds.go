package detect

// SetThresholds replaces the configuration of New, except Gone and MaxDestinations. What the engine has learned
// stays, and open alerts stay open while their cause lasts by the new values.
func (e *Engine) SetThresholds(c Config) {
	c.Gone, c.MaxDestinations = e.tracker.Gone, e.tracker.MaxDestinations
	e.tracker.Config = c.withDefaults()
	e.alerts.updateInterval = e.tracker.UpdateInterval
}
