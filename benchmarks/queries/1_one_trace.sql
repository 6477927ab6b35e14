SELECT * FROM trace(id = {trace_id:String})
